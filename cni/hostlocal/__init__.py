"""host-local IPAM, file for file what the reference plugin does, plus GC and STATUS."""
