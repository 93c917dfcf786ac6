"""The machine: resources are declared, operations are the only way anything is done to them."""
