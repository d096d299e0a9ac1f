"""The engines that turn a task into bytes on disk, and what chooses between them."""
