"""The whole router in the lab, beside a raw veth path and kernel VXLAN in the same run."""
