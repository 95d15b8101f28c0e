// Package config is the words in which a switch is described: the SPEC of a
// port ("netdev:tap0,vlan=10"), the YAML file that `kvswitch run --config`
// reads and `kvswitch config dump` writes, and the steps that lead from what
// runs to what a file asks for.
//
// The package opens nothing by itself: a Kind brings the function that opens
// ports of its kind, and Apply calls it. It keeps no state; its values belong
// to the goroutine that uses them, and Apply must not run twice at once for
// one switch.
package config
