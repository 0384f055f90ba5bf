module trainmaster.dev/testbed/pause

go 1.24
