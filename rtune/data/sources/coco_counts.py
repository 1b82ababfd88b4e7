"""How often each class is annotated in COCO's training set, for class weights without the data."""

# Boxes of the 80 classes of train2017, crowd regions included, in the order of COCO's category ids:
# 860,001 in all. Published with the reward of 2302.08242 (big_vision, reward_tune).
COCO_COUNTS: tuple[int, ...] = (
  262465, 7113, 43867, 8725, 5135, 6069, 4571, 9973,  # person ... truck
  10759, 12884, 1865, 1983, 1285, 9838, 10806, 4768,  # boat ... cat
  5508, 6587, 9509, 8147, 5513, 1294, 5303, 5131,  # dog ... giraffe
  8720, 11431, 12354, 6496, 6192, 2682, 6646, 2685,  # backpack ... snowboard
  6347, 9076, 3276, 3747, 5543, 6126, 4812, 24342,  # sports ball ... bottle
  7913, 20650, 5479, 7770, 6165, 14358, 9458, 5851,  # wine glass ... apple
  4373, 6399, 7308, 7852, 2918, 5821, 7179, 6353,  # sandwich ... cake
  38491, 5779, 8652, 4192, 15714, 4157, 5805, 4970,  # chair ... laptop
  2262, 5703, 2855, 6434, 1673, 3334, 225, 5610,  # mouse ... sink
  2637, 24715, 6334, 6613, 1481, 4793, 198, 1954,  # refrigerator ... toothbrush
)  # fmt: skip
