// Package config is the words in which a switch is described, and the only
// place that knows them: the SPEC of a port ("netdev:tap0,vlan=10"), its keys
// and what each takes, the YAML file that `kvswitch run --config` reads and
// `kvswitch config dump` writes, and what to type when the switch refuses
// something (Hint). It is also the steps that lead from what runs, or from
// nothing, to what a file asks for.
//
// The package opens nothing by itself: an Opener is handed in, and a Kind brings
// the function that opens ports of its kind. It keeps no state; its values
// belong to the goroutine that uses them, and Apply must not run twice at once
// for one switch.
package config
