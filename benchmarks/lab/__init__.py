"""What the accuracy experiments share: settings, training jobs, a pool that resumes, tables with standard errors."""
