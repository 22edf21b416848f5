"""How fast, compared with what: `pairs` sets Offline beside one sample at a time, `sweep` runs all scenarios and Server
at rising rates. Both set what they find beside the arithmetic that a device allows (`roofline`)."""
