"""What the run and several studies measure of a network: accuracy, information of layers, linear probes, AutoAttack."""
