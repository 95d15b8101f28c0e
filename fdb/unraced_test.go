//go:build !race

package fdb

const raced = false
