"""What the tests share: the stack as processes and in one thread, servers, browsers, and builders with names."""
