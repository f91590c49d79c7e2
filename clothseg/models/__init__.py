"""The networks: pretrained encoders, decoders and the U-Net that joins them."""
