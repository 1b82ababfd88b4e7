"""rtune: train vision models by imitation, then tune them with REINFORCE on the task's reward."""
