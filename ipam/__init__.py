"""IP address allocation without a central database: ring, space, first division, allocator."""
