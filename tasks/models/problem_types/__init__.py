"""What regression and classification differ in: metrics, candidates, search spaces."""
