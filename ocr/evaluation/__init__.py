"""How well it reads: metrics (CER, line accuracy, intervals, calibration, confusions), the report, pictures of results."""
