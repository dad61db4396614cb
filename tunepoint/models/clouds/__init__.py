"""Models on Amazon Bedrock and Google Cloud, by the clients that their makers keep."""
