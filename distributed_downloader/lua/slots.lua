-- Returns how many slots the fleet has, for `status`; only reads.
return slots()
