"""Files of weights: headers, parallel reads into fresh memory, and what reads leave in the page cache."""
