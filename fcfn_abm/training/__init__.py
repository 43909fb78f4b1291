"""The task: data sets, partitions, nets, local training, aggregation."""
