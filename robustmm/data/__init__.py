"""From a DataFrame with holes to tensors."""
