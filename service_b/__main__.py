"""This program runs the service: `python -m service_b`."""

from service_b.app import service

if __name__ == "__main__":
    service.serve("service_b.app:create_app")
