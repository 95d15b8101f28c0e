// Package ctl is how a running switch is spoken to: HTTP with JSON over a unix
// socket, so that whatever the command line can do a program can do with
// `curl --unix-socket`. It has the server, the client, and the claim by which
// one name is one running switch.
//
// The server decides nothing and keeps nothing; each request is one call of
// vswitch.Switch or of the Daemon around it. It never holds the switch up: a
// client that sends garbage, half a request or nothing, or that stops reading
// its answer or events, loses its connection after some seconds, and there are
// limits on connections, on what is read of them and on answers that wait to be
// read; the table is sent while it is made. Who may connect is the socket's mode, 0660; there is no other
// authentication, no TLS and no TCP.
//
// Server and Client may be used from any goroutine.
//
//	GET    /v1/switch                        vswitch.Status
//	PATCH  /v1/switch                        {"ageing":"300s"}
//	GET    /v1/ports                         [vswitch.PortStatus]
//	POST   /v1/ports                         {"spec":"netdev:tap0,vlan=10","uplink":false,"guest":false}
//	GET    /v1/ports/NAME                    vswitch.PortStatus
//	PATCH  /v1/ports/NAME                    {"vlan":"10","edge":"on"}: words of a SPEC
//	DELETE /v1/ports/NAME?guest=             guest=true: only if it was made for a guest
//	GET    /v1/fdb?port=&vlan=               [vswitch.FDBEntry]
//	POST   /v1/fdb                           {"mac":"52:54:…","vlan":10,"port":"vm1","static":true}
//	DELETE /v1/fdb?port=&vlan=               flushes; {"flushed":3}
//	DELETE /v1/fdb/MAC?vlan=
//	GET    /v1/vlans                         [PortVLANs]
//	POST   /v1/vlans                         {"port":"vm1","vids":"10-20","pvid":false,"untagged":false}
//	DELETE /v1/vlans?port=&vids=
//	GET    /v1/stp                           vswitch.STPStatus
//	PATCH  /v1/stp                           {"mode":"rstp","priority":"4096"}: words of `stp set`
//	POST   /v1/stp/ports/NAME/recover        ends what a guard did
//	POST   /v1/stp/ports/NAME/mcheck
//	GET    /v1/vms                           [qemu.GuestNIC]
//	POST   /v1/vms                           {"qmp":"/run/vm1.qmp","vhost":"auto","queues":2,…}: qemu.NIC
//	DELETE /v1/vms?qmp=&id=                  returns when the guest has let go
//	GET    /v1/stats                         [PortStats]
//	GET    /v1/events                        vswitch.Event, one JSON object a line, until the client goes
//	GET    /v1/config                        the running state as a file for --config
//	POST   /v1/reload                        reads the file anew; {"changes":["add port vm1"]}
//
// Errors are {"error":"one line"} with a status that fits. What was done may have
// brought something to be warned of: that is in headers Warning: 299 kvswitch
// "one line".
package ctl
