"""What any file or folder is: weights, descriptions, tokenizers, data sets, workflows, pictures. Without torch."""
