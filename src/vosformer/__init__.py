"""Video object segmentation with AOT, AOST, DeAOT, SimVOS, JointFormer and OneVOS."""
