"""The measurements behind `gpenvid bench`."""
