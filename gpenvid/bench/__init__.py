"""What it costs: measurements that can be repeated on any machine."""
