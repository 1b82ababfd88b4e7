"""Who follows a run beside the files of its workdir: one file a tracker."""
