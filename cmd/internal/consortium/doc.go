// Package consortium runs a Consortium of real processes on this machine: it goes through the key ceremony with the real
// programs, starts, kills, stops and suspends them, enrols devices, and asks members over their device ports. The demo
// shows with it what the product does; the chaos program breaks things with it.
package consortium
