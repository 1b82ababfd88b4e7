"""What a step costs, counted and compiled; the parts of rtune.plan, used by rtune.benchmark too."""
