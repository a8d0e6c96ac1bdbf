"""How the membership side scales: simulated, no network, no root."""
