"""What a rule may ask of whole matrices: functions of torch on stacks of equal shapes."""
