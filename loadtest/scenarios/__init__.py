"""Load tests: scenarios as data, played on processes of this machine, judged against the meters' own registers."""
