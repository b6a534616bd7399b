"""This program runs the service: `python -m service_c`."""

from service_c.app import service

if __name__ == "__main__":
    service.serve("service_c.app:create_app")
