"""Check a device: is it exact there, does nothing wait for the host, and how fast is it?"""
