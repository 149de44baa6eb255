//! A scripted AMI server over real TCP, for the faults that a real Asterisk shows only once a year.
