"""Asking an exported model: in process, by Apache Beam, over gRPC and REST; and the server with its batching, its versions and
its web page. Nothing here knows how a network is built.
"""
