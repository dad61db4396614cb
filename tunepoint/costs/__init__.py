"""Money: what an arm costs to build and to run, and from which volume building pays off."""
