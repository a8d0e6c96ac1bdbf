"""Real container runtimes on lab hosts, with our plugins installed as a user would."""
