"""Data sets of videos."""

from adafocus_env.videos.dataset import SPLITS, VideoDataset
from adafocus_env.videos.frame_folders import FrameFolders
from adafocus_env.videos.picture_folders import PictureFolders
from adafocus_env.videos.registry import get_videos, register_videos
from adafocus_env.videos.roaming_fashion import RoamingFashion
from adafocus_env.videos.roaming_motion import RoamingMotion
from adafocus_env.videos.video_files import VideoFiles

__all__ = [
    "SPLITS",
    "FrameFolders",
    "PictureFolders",
    "RoamingFashion",
    "RoamingMotion",
    "VideoDataset",
    "VideoFiles",
    "get_videos",
    "register_videos",
]
