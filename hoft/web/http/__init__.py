"""HTTP as the RFCs say: requests, responses, fields, targets, problems."""
