"""Article packages with a planted truth: to test the importer and to measure it, never to train on."""
