"""Data sets of videos."""

from adafocus_env.videos.dataset import SPLITS, VideoDataset
from adafocus_env.videos.frame_folders import FrameFolders
from adafocus_env.videos.registry import get_videos, register_videos
from adafocus_env.videos.roaming_fashion import RoamingFashion

__all__ = ["SPLITS", "FrameFolders", "RoamingFashion", "VideoDataset", "get_videos", "register_videos"]
