"""Everything that runs inside the pods or on the laptop."""
