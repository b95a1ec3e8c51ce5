"""Reading with an exported model: in process, with Apache Beam, over gRPC and REST; and the server.

The server batches requests, follows new versions and has a web page. Nothing here knows how a network is built.
"""
