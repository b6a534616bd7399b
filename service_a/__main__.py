"""This program runs the service: `python -m service_a`."""

from service_a.app import service

if __name__ == "__main__":
    service.serve("service_a.app:create_app")
