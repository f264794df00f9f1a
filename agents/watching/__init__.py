"""What a recogniser and policies make of any video, window by window."""
