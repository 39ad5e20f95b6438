"""One TOML file for every row of the paper's Table 4, and for digits and Fashion-MNIST."""
