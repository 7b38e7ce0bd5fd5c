"""`redline profile`: drive one phase at a time at an exact batch and context, record it, and take it apart."""

from redline.tune.profile.profile import Options as Options
from redline.tune.profile.profile import profile as profile
