// Package byhand follows the README by hand: its test runs the commands of the section "A consortium by hand", as they
// stand there, with the real programs and without ruche-demo.
package byhand
