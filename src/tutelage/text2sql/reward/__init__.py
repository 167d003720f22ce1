"""A prediction's reward: a number from 0 to 1 by what its query gives, that cheap tricks do not raise."""

from tutelage.text2sql.reward.judge import Attempt, Judgement, Reward
from tutelage.text2sql.reward.trainers import compute_score, compute_scores, grpo_reward

__all__ = ["Attempt", "Judgement", "Reward", "compute_score", "compute_scores", "grpo_reward"]
